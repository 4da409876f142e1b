"""`plait group`: list and describe consumer groups."""

from __future__ import annotations

from cyclopts import App

from plait import Client
from plait.cli.options import Options
from plait.cli.output import print_json, print_table
from plait.cli.session import with_client

app = App(name="group", help="List and describe consumer groups.")
MEMBER_COLUMNS = ("member", "client", "partitions")
PARTITION_COLUMNS = ("topic", "partition", "member", "meant_for", "position", "lag")


@app.command(name="list")
def list_(*, options: Options = Options()) -> int:  # noqa: B008 - frozen
    """List the consumer groups that have members."""

    async def work(client: Client) -> None:
        found = await client.groups()
        if options.json:
            print_json(found)
            return
        rows = [{**each, "topics": ", ".join(each["topics"])} for each in found]
        print_table(rows, ("name", "members", "topics"))

    return with_client(options, work)


@app.command
def describe(subscription: str, /, *, options: Options = Options()) -> int:  # noqa: B008 - frozen
    """Show a consumer group: its members, who has which partition, and how far behind it is."""

    async def work(client: Client) -> None:
        found = await client.describe_group(subscription)
        if options.json:
            print_json(found)
            return
        partitions = [
            {**each, "topic": topic["name"]} for topic in found["topics"] for each in topic["partitions"]
        ]
        members = [
            {**each, "partitions": sum(one["member"] == each["member"] for one in partitions)}
            for each in found["members"]
        ]
        print_table(members, MEMBER_COLUMNS, f"group {subscription}")
        print()
        rows = [{**each, "position": each["position"] if each["position"] >= 0 else None} for each in partitions]
        print_table(rows, PARTITION_COLUMNS)

    return with_client(options, work)
