"""Run a trained net outside PyTorch: `onnx_export`, `openvino_export`, `xnor_reference`, and `benchmark` to time them.

Import each module by its name. All but `xnor_reference` need the extra packages of `pip install -e '.[deploy]'`.
"""
