"""Linear algebra of matrices and convolution kernels: spectra, norm bounds, orthogonal factors."""
