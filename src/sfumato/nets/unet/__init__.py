"""The U-Net of denoising diffusion: `unet` the network, `blocks` what it is built from."""
