"""The measured figures that the model works with, of one core of the machine of benches/RESULTS.md.
Where each is from, docs/scale.md says; `check.py` measures those of the shared store again."""

from model import Measured

MEASURED = Measured(
    forward=FORWARD,
    ask=ASK,
    login=LOGIN,
    invalidation=INVALIDATION,
    store_read=STORE_READ,
    store_write=STORE_WRITE,
    store_push=STORE_PUSH,
    local_token=LOCAL_TOKEN,
    stored_token=STORED_TOKEN,
)
