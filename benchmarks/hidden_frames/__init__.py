"""A hidden picture of real films, predicted from those before and after it."""
