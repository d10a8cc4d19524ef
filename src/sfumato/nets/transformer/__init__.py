"""The diffusion transformer: `transformer` the network, `blocks` what it is built from."""
