"""What of a vision tower the host must know. Apart from `vision_inputs`, so that it can be read without NumPy and numba."""

from __future__ import annotations

from typing import NamedTuple


class VisionLayout(NamedTuple):
    """What of a vision tower the host must know to lay out patches (`VisionConfig.layout` makes it from a config).

    Attributes:
      merge_size: side in patches of the square that one token covers.
      window_patches: side of a window in patches.
      patch_bytes: bytes of a patch: channels * height * width.
    """

    merge_size: int
    window_patches: int
    patch_bytes: int

    @property
    def patches_per_token(self) -> int:
        """Number of patches that become one token."""
        return self.merge_size**2


QWEN2_5_VL = VisionLayout(merge_size=2, window_patches=8, patch_bytes=588)
"""The published models': 2 x 2 patches of 14 x 14 pixels per token, windows of 112 pixels."""
