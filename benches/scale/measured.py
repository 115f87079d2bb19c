"""The measured figures that the model works with, of one core of the machine of benches/RESULTS.md.
docs/scale.md says where each is from; those of the store come from check.py."""

from model import Measured

MEASURED = Measured(
    forward=18.0e-6,
    ask=135e-6,
    login=17e-3,
    invalidation=27e-6,
    store_read=45e-6,
    store_write=67e-6,
    store_push=21e-6,
    local_token=223,
    stored_token=495,
)
