"""One line in the training loops that people have: transformers' Trainer, Lightning, accelerate.

A library's loop makes the optimizer itself, after the model was handed over; it accumulates, clips, evaluates, saves and
resumes. None of that is ours to run. So each module here waits until the library has made its optimizer, puts the module
under plan (`outsize.compile`), and watches the bytes of the whole run, evaluations and checkpoints included (`run.py`).
The loop, the checkpoints and the results stay the library's, to the bit.

    from outsize.integrations.transformers import OutsizeCallback   # Trainer, trl's SFTTrainer, PEFT models
    from outsize.integrations.lightning import OutsizeCallback      # a LightningModule, or a submodule of it
    from outsize.integrations.accelerate import prepare             # in place of accelerator.prepare
    from outsize.integrations.processes import agree                # one plan for all processes of DDP or FSDP2
    from outsize.integrations.scalars import LogScalars             # figures of each step, for TensorBoard or W&B

The first three need their library: `pip install 'outsize[transformers]'`, `'outsize[lightning]'` or
`'outsize[accelerate]'`.
"""

from .run import Run, RunPeaks

__all__ = ["Run", "RunPeaks"]
