// Runs an ONNX file in onnxruntime-web (WebAssembly, in Node.js) and prints all logits as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [file, pixels, ...shape] = process.argv.slice(2);
const [count, ...image] = shape.map(Number);
const require = createRequire(import.meta.url); // looks in NODE_PATH, too
const ort = require("onnxruntime-web");
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(file), { executionProviders: ["wasm"] });
const bytes = new Uint8Array(readFileSync(pixels));
const size = image.reduce((a, b) => a * b);
const logits = [];
for (let i = 0; i < count; i++) {
  const images = new ort.Tensor("uint8", bytes.slice(i * size, (i + 1) * size), [1, ...image]);
  logits.push(...(await session.run({ images })).logits.data);
}
console.log(JSON.stringify({ logits, version: ort.env.versions.web }));
