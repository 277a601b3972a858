/* --- start --- */
/* A layer: a convolution, or a linear layer, which is a convolution of one pixel, and the BatchNorm after it. */
typedef struct Layer {
    int inputs, outputs; /* channels */
    int kernel, stride, padding; /* in pixels */
    int bits; /* per weight, where the inputs are real numbers */
    const void *weights;
    const float *gain, *shift; /* of each output: weight scale and BatchNorm, folded into one product and one sum */
    void (*row)(const struct Layer *layer, const void *input, int height, int width, int y);
} Layer;

/* All feature maps are stored pixel by pixel, with the channels of a pixel next to each other. */
static float pixels[HEIGHT * WIDTH * COLOURS]; /* the normalized image */
static float features[MOST_FEATURES];          /* the map that skip connections carry */
static Value input[MOST_INPUTS];               /* the activations that the next layer reads */
static float sums[MOST_SUMS];                  /* one row of a layer's output */

/* The number of pixels from one side of a layer's output to the other. */
static int output_side(const Layer *layer, int side)
{
    return (side + 2 * layer->padding - layer->kernel) / layer->stride + 1;
}

/* The place of a pixel beyond the border: the border is a mirror. */
static int reflect(int place, int side)
{
    return place < 0 ? -place : place < side ? place : 2 * side - 2 - place;
}

/* Standardize and whiten an image: subtract the mean colour, then apply a 3 x 3 filter.

   FILTER is the whitening filter divided by the standard deviations; its last index is the output. */
static void normalize(const uint8_t *image)
{
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            float *to = pixels + (y * WIDTH + x) * COLOURS;
            for (int out = 0; out < COLOURS; out++)
                to[out] = 0;
            for (int i = 0; i < 9; i++) {
                int from = reflect(y + i / 3 - 1, HEIGHT) * WIDTH + reflect(x + i % 3 - 1, WIDTH);
                for (int c = 0; c < COLOURS; c++) {
                    float value = (float)image[c * HEIGHT * WIDTH + from] - MEAN[c];
                    for (int out = 0; out < COLOURS; out++)
                        to[out] += value * FILTER[(i * COLOURS + c) * COLOURS + out];
                }
            }
        }
}

/* Unpack the weights from one input value to all outputs: -1 and 1, or -1, 0 and 1, or whole numbers of a byte.
   Eight outputs at a time share one or two bytes, so a compiler can unpack them with a few instructions. */
static void unpack(const Layer *layer, int number, float *levels)
{
    int outputs = layer->outputs;
    const uint8_t *bytes = (const uint8_t *)layer->weights + number * ((outputs + 7) / 8 * layer->bits);

    for (int o = 0; o < outputs; o += 8, bytes += layer->bits, levels += 8)
        if (layer->bits == 1)
            for (int i = 0; i < 8; i++)
                levels[i] = (float)((bytes[0] >> i & 1) * 2 - 1);
        else if (layer->bits == 2) /* the first byte has a bit for each 1, the second one for each -1 */
            for (int i = 0; i < 8; i++)
                levels[i] = (float)((bytes[0] >> i & 1) - (bytes[1] >> i & 1));
        else
            for (int i = 0; i < 8; i++)
                levels[i] = (float)(int8_t)bytes[i];
}

/* Compute one row of sums of a layer whose inputs are real numbers. Weights are unpacked once per row. */
static void row_of_floats(const Layer *layer, const void *values, int height, int width, int y)
{
    static float levels[(MOST_OUTPUTS + 7) / 8 * 8];
    int outputs = layer->outputs, columns = output_side(layer, width);

    for (int i = 0; i < columns * outputs; i++)
        sums[i] = 0;
    for (int i = 0; i < layer->kernel * layer->kernel; i++) {
        int down = i / layer->kernel - layer->padding, right = i % layer->kernel - layer->padding;
        int from_y = y * layer->stride + down;
        if (from_y < 0 || from_y >= height)
            continue; /* zero padding adds nothing */
        for (int c = 0; c < layer->inputs; c++) {
            unpack(layer, i * layer->inputs + c, levels);
            for (int x = 0; x < columns; x++) {
                int from_x = x * layer->stride + right;
                if (from_x < 0 || from_x >= width)
                    continue;
                float value = ((const float *)values)[(from_y * width + from_x) * layer->inputs + c];
                float *to = sums + x * outputs;
                if (value != 0) /* after a ReLU, many values are 0 */
                    for (int o = 0; o < outputs; o++)
                        to[o] += value * levels[o];
            }
        }
    }
}

/* Keep the largest sum of each window of pool x pool pixels; the first one of a window replaces what was there. */
static void keep_largest(int y, int columns, int outputs, int pool)
{
    int wide = columns / pool;

    for (int x = 0; x < wide * pool; x++) {
        const float *from = sums + x * outputs;
        float *kept = features + (y / pool * wide + x / pool) * outputs;
        int is_first = y % pool == 0 && x % pool == 0;
        for (int o = 0; o < outputs; o++)
            kept[o] = is_first || from[o] > kept[o] ? from[o] : kept[o];
    }
}

/* A layer, max pooling and the BatchNorm: the features become those of the layer. */
static void replace(const Layer *layer, const void *values, int height, int width, int pool)
{
    int rows = output_side(layer, height) / pool, columns = output_side(layer, width);
    int outputs = layer->outputs;

    for (int y = 0; y < rows * pool; y++) {
        layer->row(layer, values, height, width, y);
        keep_largest(y, columns, outputs, pool);
    }
    for (int i = 0; i < rows * (columns / pool); i++)
        for (int o = 0; o < outputs; o++)
            features[i * outputs + o] = features[i * outputs + o] * layer->gain[o] + layer->shift[o];
}

/* --- skip --- */
/* A layer with a skip connection: its output is added to the features. */
static void add(const Layer *layer, const void *values, int height, int width)
{
    int outputs = layer->outputs;

    for (int y = 0; y < height; y++) {
        layer->row(layer, values, height, width, y);
        for (int x = 0; x < width; x++)
            for (int o = 0; o < outputs; o++)
                features[(y * width + x) * outputs + o] += sums[x * outputs + o] * layer->gain[o] + layer->shift[o];
    }
}

/* Replace the features by the largest of each channel. */
static void largest(int places, int channels)
{
    for (int i = 1; i < places; i++)
        for (int c = 0; c < channels; c++)
            if (features[i * channels + c] > features[c])
                features[c] = features[i * channels + c];
}

/* --- signs --- */
/* Count the bits that are 1. Where the compiler knows no instruction for many words, it can use this sum for them. */
static inline uint32_t popcount(uint32_t word)
{
#if defined(__AVX512VPOPCNTDQ__) || defined(__wasm_simd128__) || defined(__ARM_NEON)
    return (uint32_t)__builtin_popcount(word);
#else
    word -= word >> 1 & 0x55555555;                              /* in pairs of bits */
    word = (word & 0x33333333) + (word >> 2 & 0x33333333);       /* in groups of 4 */
    word = (word + (word >> 4)) & 0x0f0f0f0f;                    /* in bytes */
    word += word >> 8;
    return (word + (word >> 16)) & 0x3f;
#endif
}

/* Compute one row of sums of a layer whose weights and inputs are signs, 32 of them per word.

   A product is -1 where two bits differ and 1 where they agree, so the sum of n products is n - 2 x (bits that differ).
   The channels of a pixel fill whole words. The bits that are left over are 0 in both, so they never differ. */
static void row_of_signs(const Layer *layer, const void *values, int height, int width, int y)
{
    static uint32_t differ[MOST_OUTPUTS];
    int outputs = layer->outputs, columns = output_side(layer, width), words = (layer->inputs + 31) / 32;

    for (int x = 0; x < columns; x++) {
        int n = 0;
        for (int o = 0; o < outputs; o++)
            differ[o] = 0;
        for (int i = 0; i < layer->kernel * layer->kernel; i++) {
            int from_y = y * layer->stride + i / layer->kernel - layer->padding;
            int from_x = x * layer->stride + i % layer->kernel - layer->padding;
            if (from_y < 0 || from_y >= height || from_x < 0 || from_x >= width)
                continue; /* zero padding is no sign: it adds nothing, and does not count */
            n += layer->inputs;
            for (int w = 0; w < words; w++) {
                uint32_t signs = ((const uint32_t *)values)[(from_y * width + from_x) * words + w];
                const uint32_t *weights = (const uint32_t *)layer->weights + (i * words + w) * outputs;
                for (int o = 0; o < outputs; o++)
                    differ[o] += popcount(signs ^ weights[o]);
            }
        }
        for (int o = 0; o < outputs; o++)
            sums[x * outputs + o] = (float)(n - 2 * (int)differ[o]);
    }
}

/* The activation: a sign. The bit is 1 where a number is at least 0. */
static void activate_row(const float *from, int places, int channels, uint32_t *to)
{
    for (int i = 0; i < places; i++)
        for (int first = 0; first < channels; first += 32) {
            uint32_t word = 0;
            for (int c = first; c < channels && c < first + 32; c++)
                word |= (uint32_t)(from[i * channels + c] >= 0) << (c - first);
            *to++ = word;
        }
}

/* --- relu --- */
/* The activation: a ReLU. */
static void activate_row(const float *from, int places, int channels, float *to)
{
    for (int i = 0; i < places * channels; i++)
        to[i] = from[i] > 0 ? from[i] : 0;
}

/* --- activate --- */
/* Apply the activation to the features; the result is the input of the next layer. */
static void activate(int places, int channels)
{
    activate_row(features, places, channels, input);
}

/* --- stem --- */
/* The stem: fixed filters, whose responses are negated and repeated, the BatchNorm and the activation. */
static void stem(const Layer *layer, int channels)
{
    static float row[MOST_STEM];
    int columns = output_side(layer, WIDTH);

    for (int y = 0; y < output_side(layer, HEIGHT); y++) {
        row_of_floats(layer, pixels, HEIGHT, WIDTH, y);
        for (int x = 0; x < columns; x++)
            for (int c = 0; c < channels; c++) {
                float response = sums[x * layer->outputs + c % layer->outputs];
                float value = c / layer->outputs % 2 ? -response : response;
                row[x * channels + c] = value * layer->gain[c] + layer->shift[c];
            }
        activate_row(row, columns, channels, input + y * columns * VALUES(channels));
    }
}

/* --- main --- */
static int best_of(const float *scores)
{
    int best = 0;

    for (int i = 1; i < CLASSES; i++)
        if (scores[i] > scores[best])
            best = i;
    return best;
}

int prefix_class(const uint8_t *image)
{
    float scores[CLASSES];

    prefix_scores(image, scores);
    return best_of(scores);
}

#ifdef PREFIX_MAIN
/* A program: it reads raw images from its input and writes one line per image: the class and the scores. */
#include <stdio.h>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

int main(void)
{
    static uint8_t image[COLOURS * HEIGHT * WIDTH];
    float scores[CLASSES];
    size_t count;

#ifdef _WIN32
    _setmode(_fileno(stdin), _O_BINARY); /* otherwise, some bytes would count as the end of a line or a file */
#endif
    while ((count = fread(image, 1, sizeof image, stdin)) == sizeof image) {
        prefix_scores(image, scores);
        printf("%d", best_of(scores));
        for (int i = 0; i < CLASSES; i++)
            printf(" %.9g", (double)scores[i]);
        printf("\n");
    }
    if (count != 0)
        fprintf(stderr, "the last image is incomplete: %d of %d bytes\n", (int)count, (int)sizeof image);
    return count != 0;
}
#endif
