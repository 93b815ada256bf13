"""Requests against a server: when they are due, what they say, who sends them, what it gave.

    request             what is asked and what is recorded of it
    arrivals            when requests are due: an absolute schedule, or a closed loop of users
    datasets            what they say: ShareGPT's file, random ids of given lengths, shared prefixes
    client              sends them and stamps what comes back; alone here in touching a clock
    server_sent_events  the bytes of a stream to the data of its events
    lateness            whether the sender kept its schedule
    figures             records to figures

Times are seconds of one monotonic clock, lengths are tokens. The package imports no HTTP library:
that is an adapter's (`perfsuite.adapters`).
"""
