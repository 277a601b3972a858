"""Helpers for a hands-on course on training low-bit neural networks with Brevitas and PyTorch."""

import logging

# Where CUDA_HOME is set and there is no GPU, importing Brevitas would warn of a runtime that nobody misses.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
