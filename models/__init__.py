"""What a personalised model is and how good it is: torch and transformers, without Ray.

In reading order:

history.py       interactions, histories, their split in time; all users' on disk
lines.py         one line of data, and what is wrong with a bad one
readers.py       the formats that data comes in
dialogues.py     one of them: nested dialogues
splitting.py     where a history is cut
sorting.py       any number of lines, sorted on disk
archive.py       all users' lines, memory-mapped, replaced at once
quiz.py          a benchmark's user: a history, and questions after it
lamp.py          LaMP's files as quizzes
persona_mem.py   PersonaMem's files as quizzes
quizzes.py       either, known by the names of its files, or any other data
loading.py       a base's files as transformers reads them, or why it can't
base.py          the one frozen model and its tokenizer
precision.py     in which numbers it lies on a device, and whether it fits
alive.py         whether a device still computes, asked after an error
families.py      where each architecture keeps its feed-forward matrices
fingerprint.py   what a base is known by
prompt.py        text to tokens: the prompt formats
products.py      matrix products as fast as the processor allows
pointwise.py     norms and rotations of positions in fewer passes over memory
layout.py        rows behind one another, as one: nothing is padded but in attention
attention.py     attention inside such rows, and in bfloat16 where a CPU trains
lowrank.py       B A x of many memories at once, added to a layer's output
bank.py          many LoRA memories side by side on one base
head.py          the loss of hidden states, without ever holding their logits
batching.py      how rows are cut into batches
loss.py          nats per row
recomputation.py gradient checkpointing: less memory for one more forward pass
training.py      one learner's schedule, best weights and stop
trainer.py       packed training: memories join and leave between steps
peak.py          the most bytes that a piece of work holds
cost.py          what a pack costs in bytes, and how much of it runs at once
cache.py         keys and values of running rows
decoding.py      answers of rows of different users in one running batch
soft.py          soft tokens: vectors in the place of a prompt's first embeddings
attended.py      gated cross-attention: vectors that hidden states attend to after chosen layers
projection.py    vectors that describe a user to soft tokens
parts.py         what a row runs under: a LoRA, soft tokens, vectors to attend to
options.py       configurations of methods that search no layers
personalizer.py  what every method offers: Personalizer, Task, UserState
reading.py       texts to tokens on threads that don't run the base
encoder.py       texts to vectors, by the base or by an encoder from the hub
jointly.py       training what a method shares, on many people at once
fitting.py       how a method's tasks run
milp.py          the main method: memory injection, then instruction tuning
tuning.py        how long a method tunes that learns from pairs alone
prompt_tuning.py soft tokens of the user's own
shared_prompt.py soft tokens for all users
vectors.py       a user's items and queries as vectors
e2p.py           a soft token made of the user's vector
plug.py          two soft tokens of a query and the items of a history
pplug.py         what a query finds in the history, as a soft token behind an instruction
named.py         a module's tensors under names
timeline.py      a user encoder: a history's vectors to states that foresee what follows
resampler.py     any number of vectors to a fixed few
user_network.py  both, and how their vectors reach a base
uelp.py          a user encoder and its vectors, as soft tokens or to attend to
slots.py         latent slots of a user, read by the query
lpm.py           latent slots a user, fitted under a shared network
lora_all.py      the same on every layer, without a search
oppu.py          a LoRA a user on queries and values, at fixed settings
kept.py          what is made of a state once, for all requests
retrieval.py     which of a user's texts belong to a query
excerpts.py      what is put before a query, within a budget of tokens
text.py          methods of words: the newest, or what fits the query
promotion.py     two memories of a past, and what enters the long one
malp.py          a query behind what both memories hold on it
combined.py      two methods at once: words before what another attaches
nothing.py       the control: no personalisation
population.py    what users share, learned once and merged into the base
pretrain.py      a small base made from nothing, on the words of others
catalog.py       name -> Personalizer
words.py         text to words, for the measures
rouge.py         ROUGE-1 and ROUGE-L
persona.py       Persona-F1 and P-Cover
scoring.py       loss, ROUGE, persona and recall on a split
choices.py       which of its options a model picks, and how often that is right
gain.py          own memory against strangers'
strength.py      how much of a trained memory is kept
inside.py        which tokens a memory made likelier
storage.py       content-addressed folders, written whole or not at all
peft_format.py   a user state as a PEFT adapter
published.py     what a published state says of itself
pointer.py       which of a user's states is current
listing.py       who has one
sharing.py       what a method shares between its users, and where it is kept
registry.py      published user states on disk
"""
