"""Run a trained net outside PyTorch: `onnx_export`, `openvino_export`, and `benchmark` to time them.

`xnor_reference` and `integer_reference` compute nets in NumPy, to show how. Import each module by its name. All but
these two need the extra packages of `pip install -e '.[deploy]'`.
"""
