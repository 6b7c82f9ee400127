"""What a personalised model is and how good it is: torch and transformers, without Ray.

In reading order:

history.py       interactions, histories, their split in time; all users' on disk
lines.py         one line of data, and what is wrong with a bad one
readers.py       the formats that data comes in
dialogues.py     one of them: nested dialogues
splitting.py     where a history is cut
sorting.py       any number of lines, sorted on disk
archive.py       all users' lines, memory-mapped, replaced at once
loading.py       a base's files as transformers reads them, or why it can't
base.py          the one frozen model and its tokenizer
precision.py     in which numbers it lies on a device, and whether it fits
families.py      where each architecture keeps its feed-forward matrices
fingerprint.py   what a base is known by
prompt.py        text to tokens: the prompt formats
products.py      matrix products as fast as the processor allows
lowrank.py       B A x of many memories at once, added to a layer's output
bank.py          many LoRA memories side by side on one base
head.py          the loss of hidden states, without ever holding their logits
batching.py      how rows are cut into batches
loss.py          nats per row
recomputation.py gradient checkpointing: less memory for one more forward pass
training.py      one memory's schedule, best weights and stop
trainer.py       packed training: memories join and leave between steps
peak.py          the most bytes that a piece of work holds
cost.py          what a pack costs in bytes, and how much of it runs at once
decoding.py      answers of rows of different users in one running batch
soft.py          soft tokens: vectors in the place of a prompt's first embeddings
parts.py         what a row runs under: a LoRA, soft tokens
options.py       configurations of methods that search no layers
personalizer.py  what every method offers: Personalizer, Task, UserState
encoder.py       texts to vectors, by the base or by an encoder from the hub
jointly.py       training what a method shares, on many people at once
fitting.py       how a method's tasks run
milp.py          the main method: memory injection, then instruction tuning
nothing.py       the control: no personalisation
population.py    what users share, learned once and merged into the base
pretrain.py      a small base made from nothing, on the words of others
catalog.py       name -> Personalizer
words.py         text to words, for the measures
persona.py       Persona-F1 and P-Cover
scoring.py       loss, ROUGE, persona and recall on a split
gain.py          own memory against strangers'
strength.py      how much of a trained memory is kept
inside.py        which tokens a memory made likelier
storage.py       content-addressed folders, written whole or not at all
peft_format.py   a user state as a PEFT adapter
published.py     what a published state says of itself
pointer.py       which of a user's states is current
sharing.py       what a method shares between its users, and where it is kept
registry.py      published user states on disk
"""
