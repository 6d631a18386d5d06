"""What a layer costs beside the plain network and beside other people's code: `lipref bench`."""
