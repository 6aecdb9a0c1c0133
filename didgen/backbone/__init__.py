"""A handle over the parts of a Stable Diffusion model, and sampling from it."""
