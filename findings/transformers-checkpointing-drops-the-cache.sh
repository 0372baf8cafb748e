#!/usr/bin/env bash
# transformers 5.24.0 (torch 2.15.0, CPU): with gradient checkpointing a model in training reads no past, whatever cache it is given.
#
# Why it matters here: a long text is trained segment by segment over the keys and values of the segments before, with a gradient through all
# of them or with some cut off, and checkpointing is what one turns on where that does not fit. Then every layer replaces the cache that it is
# given by none, which is said once on the log: each segment is read alone, from position 0, in training and not in evaluation, so that
# neither loss nor gradient is that of the model. Both kinds of checkpointing (use_reentrant). A StaticCache has no gradient at all: backward raises.
#
# Guess, before it was run: the past is kept, and the gradient is that of the whole. Wrong.
# Seen: 16 tokens in 4 segments with a DynamicCache: without checkpointing loss and gradient of the whole, to 1e-6; with it the loss of four texts of
#       4 tokens, a gradient more than 0.1 off, and the cache stays empty. In evaluation the loss of the whole.
#
# usage: transformers-checkpointing-drops-the-cache.sh [python]   the python of an environment with transformers 5.24.0 and torch 2.15.0, else one is
#                                                                 made, which needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install transformers==5.24.0 torch==2.15.0
  python="$work/venv/bin/python"
fi
TRANSFORMERS_VERBOSITY=error "$python" - <<'PY'
import sys
import warnings

import torch
import transformers
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

warnings.simplefilter("ignore")
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                                     num_key_value_heads=1, vocab_size=11))
with torch.no_grad():
    for p in model.parameters():
        if p.dim() > 1:
            p.mul_(5)
ids = torch.randint(0, 11, (1, 16))


def loss_of(logits, start, length):
    targets = ids[:, start + 1 : start + length + 1]
    return -logits.log_softmax(-1)[:, : targets.shape[1]].gather(-1, targets[..., None]).sum()


def segments(remember):
    cache, loss = DynamicCache(config=model.config), 0.0
    for t in range(0, 16, 4):
        out = model(input_ids=ids[:, t : t + 4], use_cache=True, **({"past_key_values": cache} if remember else {}))
        loss = loss + loss_of(out.logits, t, 4)
    return loss, cache.get_seq_length()


def gradient(loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


model.train()
whole = loss_of(model(input_ids=ids).logits, 0, 16)
exact = gradient(whole)
alone = float(segments(False)[0].detach())
as_seen = transformers.__version__ == "5.24.0"
for how in (None, False, True):
    model.gradient_checkpointing_disable()
    if how is not None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": how})
    loss, remembered = segments(True)
    off = float((gradient(loss) - exact).norm() / exact.norm())
    print(f"transformers {transformers.__version__}, checkpointing {'off' if how is None else f'with use_reentrant={how}'}: loss {float(loss.detach()):.4f} "
          f"(whole {float(whole.detach()):.4f}, segments alone {alone:.4f}), gradient {off:.1e} off, tokens in the cache {remembered}")
    right = abs(float(loss.detach()) - float(whole.detach())) < 1e-3 and off < 1e-4
    dropped = abs(float(loss.detach()) - alone) < 1e-3 and off > 0.1 and remembered == 0
    as_seen = as_seen and (right if how is None else dropped)
model.eval()
with torch.no_grad():
    evaluated = float(segments(True)[0])
print(f"evaluated with checkpointing on: loss {evaluated:.4f}")
sys.exit(not (as_seen and abs(evaluated - float(whole.detach())) < 1e-3))
PY
