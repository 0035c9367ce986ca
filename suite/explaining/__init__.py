"""Why a model answers as it does: attribution maps, their checks, and the nearest training images."""
