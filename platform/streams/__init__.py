"""Durable event log behind SSE and WebSocket: written once, read from any process, resumed at any event.

One task writes a stream, others read it; they share no reference to each other. Their link is `ProcessStreams`, which
both are given: the writer registers the stream there, readers look it up by id. Other processes read it through Redis.

    writer.py         EventLogWriter.append ──▶ buffer.LocalStream ──▶ reader.LocalSource       same process
                      LogFlusher ──▶ Redis Stream, record, pub/sub ──▶ reader.RemoteSource      other processes
    registry.py       ProcessStreams: the streams of this process; StreamSupervisor: starts and drains writer tasks
    process.py        heartbeat, report of active streams, cancel requests
    subscriptions.py  one pub/sub connection for all streams that are read from other processes
    entries.py        the format in Redis; errors.py
"""
