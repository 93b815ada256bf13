"""Requests against a server: when they are due, what they say, who sends them, what it gave.

    request             what is asked and what is recorded of it
    choices             what a run says of its load, as options and parts of a workload's id
    demand              a workload's requests and arrivals, other prompts in every load
    arrivals            when requests are due: an absolute schedule, or a closed loop of users
    datasets            what they say: ShareGPT's file, random ids of given lengths, shared prefixes
    conversation_lengths  ShareGPT's published lengths, where no file is given
    client              sends them and stamps what comes back; alone here in touching a clock
    clients, sender     the same from several processes, where one can not keep up
    server_sent_events  the bytes of a stream to the data of its events
    lateness            whether the sender kept its schedule
    figures             records to figures
    request_log         records to a file, for people
    procedure           the document's protocol on a server: what a block is

Times are seconds of one monotonic clock, lengths are tokens. The package imports no HTTP library:
that is an adapter's (`perfsuite.adapters`).
"""
