"""A server for this repository's engines: JetStream's gRPC contract and OpenAI's HTTP.

    python -m engines.serve --engine=torch --checkpoint_path=FOLDER

One thread owns the engine and runs all sequences in slots, asyncio is in front of it. What passes
between them is a Ticket on the way in and a list of News on the way back.
"""
