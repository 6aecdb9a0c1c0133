"""DiDGen: diffusion-based dual-task synthesis of dermoscopic data, and the verdict on its use."""

__version__ = "0.2.0"
