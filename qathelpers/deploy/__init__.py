"""Run a trained net outside PyTorch.

`onnx_export` and `int8_export` write ONNX files, `openvino_export` runs nets in OpenVINO, and `benchmark` times them.
`c` writes a net as one C file, `export` is what `qat export` calls, and `demo` a page on which it runs in a browser. `xnor_reference` and
`integer_reference` compute nets in NumPy, to be read. Import each module by its name. The first four need the extra
packages of `pip install -e '.[deploy]'`, the next two a C compiler.
"""
