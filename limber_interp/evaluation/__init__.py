"""Numbers about what a model says: how good, how sure, and against which chance level."""
