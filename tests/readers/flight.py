"""A plain Flight client that inspects a worker: flight.py HOST:PORT JOB. Prints one JSON object per flight.

It checks what can be checked from here: that a flight's descriptor leads back to it, that schemas agree, that the
ticket that is shown opens nothing, and that nonsense is refused by name. It fails with a sentence where one of them
does not hold.
"""

import json
import sys

import pyarrow as pa
import pyarrow.flight as flight


def refused(kind, call):
    """The message with which `call` is refused. The error must have that type."""
    try:
        call()
    except kind as error:
        return str(error)
    raise SystemExit(f"{call} was not refused")


def main(address, job):
    client = flight.connect(f"grpc://{address}")
    flights = list(client.list_flights())
    if [f.descriptor.path for f in flights] != [f.descriptor.path for f in client.list_flights(job.encode())]:
        raise SystemExit("the job's flights are not those that are listed")
    if list(client.list_flights(b"another-job")):
        raise SystemExit("a job that is not here has flights")

    for listed in flights:
        info = client.get_flight_info(listed.descriptor)
        same = (info.total_records, info.total_bytes) == (listed.total_records, listed.total_bytes)
        if not same or info.schema != listed.schema:
            raise SystemExit(f"{listed.descriptor.path} has two different descriptors")
        if client.get_schema(listed.descriptor).schema != info.schema:
            raise SystemExit(f"{listed.descriptor.path} has two schemas")
        (endpoint,) = info.endpoints
        said = refused(flight.FlightUnauthorizedError, lambda: client.do_get(endpoint.ticket).read_all())
        if "key" not in said:
            raise SystemExit(f"the refusal does not name the key: {said}")
        print(
            json.dumps(
                {
                    "path": [part.decode() for part in listed.descriptor.path],
                    "rows": info.total_records,
                    "bytes": info.total_bytes,
                    "columns": {field.name: str(field.type) for field in info.schema},
                    "locations": [location.uri.decode() for location in endpoint.locations],
                }
            )
        )

    malformed = pa.ArrowInvalid
    refused(malformed, lambda: client.do_get(flight.Ticket(b"\xff\xff")).read_all())
    for path in ([b"../../etc/passwd", b"0", b"0", b"0"], [job.encode(), b"0", b"..", b"0"], [job.encode()]):
        refused(malformed, lambda: client.get_flight_info(flight.FlightDescriptor.for_path(*path)))
    refused(KeyError, lambda: client.get_flight_info(flight.FlightDescriptor.for_path(job, "0", "0", "4000000000")))
    batch = pa.record_batch({"a": [1]})
    put = flight.FlightDescriptor.for_command(b"nonsense")

    def write():
        writer, _ = client.do_put(put, batch.schema)
        writer.write_batch(batch)
        writer.close()

    refused(malformed, write)
    # The server still responds.
    if len(list(client.list_flights())) != len(flights):
        raise SystemExit("flights were lost on the way")


main(*sys.argv[1:])
