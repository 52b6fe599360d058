"""`ENGINE = "fiberback.django.postgresql"`: see `fiberback.django`."""
