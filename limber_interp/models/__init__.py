"""Image encoders, the projection, the language model, and Limber, which composes them."""
