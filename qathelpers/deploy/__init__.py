"""Run a trained net outside PyTorch.

`onnx_export` and `int8_export` write ONNX files, `openvino_export` writes files for OpenVINO and runs them, and
`benchmark` times them. `export` chooses among the formats for `qat export`. `c` writes a net as one C file, and `demo`
a page on which that file runs in a browser. `xnor_reference` and `integer_reference` compute nets in NumPy, to be read.
Import each module by its name. The first four need the extra packages of `pip install -e '.[deploy]'`; `c` and `demo`
need a C compiler.
"""
