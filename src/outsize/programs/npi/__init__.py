"""A neural programmer-interpreter whose data come from modeled primitives (method 3).

traces = npi.trace(program, examples)     an ordinary function over pointers becomes a log of system calls
template = npi.parameterize(traces)       its data assignments become primitive ids: a higher-order function
model = npi.train(template)               an LSTM learns the function, one small network each primitive
npi.run(model, executions)                in batches, on explicit stacks
npi.verify(template, model)               a certificate: equal to the program at every length
"""

from __future__ import annotations

from .certificate import Certificate, read_certificate
from .certify import certify as verify
from .compose import compose
from .controller import ControllerSettings
from .filler import Filler, as_filler
from .fitting import PrimitiveSettings
from .library import LIBRARY
from .listing import to_python
from .machine import Limits, Stats
from .store import filler_of, learn, read_pairs, sample_of, shipped, swap, template_of
from .tape import Head, Pointer, Tape
from .template import Template, Traces, parameterize, trace
from .trained import Trained, run, train
from .weights_file import load, save

__all__ = [
    "LIBRARY",
    "Certificate",
    "ControllerSettings",
    "Filler",
    "Head",
    "Limits",
    "Pointer",
    "PrimitiveSettings",
    "Stats",
    "Tape",
    "Template",
    "Traces",
    "Trained",
    "as_filler",
    "compose",
    "filler_of",
    "learn",
    "load",
    "parameterize",
    "read_certificate",
    "read_pairs",
    "run",
    "sample_of",
    "save",
    "shipped",
    "swap",
    "template_of",
    "to_python",
    "trace",
    "train",
    "verify",
]
