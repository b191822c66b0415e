"""The queued mode: tasks that survive the death of workers, servers and brokers, drawn by Celery workers.

A task's record in the result store is the truth; a message in the broker is only a bell that says "look".
So a message may come twice, late or not at all: a worker that hears one claims the record, and whoever runs
sweeps (`sweep.py`) rings again for what was left lying. docs/queue.md draws it.
"""
