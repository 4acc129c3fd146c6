"""How good a caption is: against what people wrote of the image, and against the image itself."""
