"""May this input do that to members and to sleep? Does what the replica shows fit together? (Dissertation, 4.)"""

from __future__ import annotations

from replication.machine import KIND_MEMBERSHIP
from replication.raft.membership import Membership
from replication.raft.messages import Sleep
from tests.sim.reference.facts import Broken, Reign, decoded
from tests.sim.reference.step import LEADER, Step
from tests.sim.reference.trace import Append


def membership(step: Step) -> None:
    """One change at a time, in joint steps, in force when appended (dissertation 4.1 to 4.3)."""
    replica, after = step.replica, step.after
    reign = step.reign
    if reign is not None and reign.leader == replica.id and not isinstance(step.message, Append):
        for entry in step.appended:
            if entry.kind == KIND_MEMBERSHIP:
                _changes(step, reign, entry.at)
    index, encoded = replica.configs[-1]
    if after.membership != encoded or (index > after.snapshot_index and after.membership_index != index):
        found = (
            f"{decoded(after.membership)} of {after.membership_index}, its log has {decoded(encoded)} at {index}"
        )
        raise Broken("the last membership of the log is in force", "dissertation 4.1", found)
    in_force = decoded(encoded)
    if after.role == LEADER and index <= after.commit and not in_force.is_voter(replica.id):
        raise Broken("who is taken out leads no longer", "dissertation 4.2.2", f"{in_force} is committed")
    if replica.in_force[-1][1] != encoded:
        replica.in_force.append((step.number, encoded))


def _changes(step: Step, reign: Reign, index: int) -> None:
    configs = step.replica.configs
    at = next(at for at, each in enumerate(configs) if each[0] == index)
    (former_index, former_bytes), new = configs[at - 1], decoded(configs[at][1])
    former = decoded(former_bytes)
    if former_index > step.after.commit:
        found = f"{former} of {former_index} is not committed"
        raise Broken("one change of members at a time", "dissertation 4.1", found)
    if step.after.commit < reign.first:
        found = f"entry {reign.first} is the first of its term, {step.after.commit} are committed"
        raise Broken("no change before a commit in the own term", "Ongaro, raft-dev, 10 July 2015", found)
    if not _one_step(former, new):
        raise Broken("a change of voters goes through both sets", "dissertation 4.3", f"{former} to {new}")


def _one_step(former: Membership, new: Membership) -> bool:
    if former.outgoing:
        return not new.outgoing and new.voters == former.voters
    return new.outgoing == former.voters or (not new.outgoing and new.voters == former.voters)


def sleep(step: Step) -> None:
    """Only a group in which all that live have everything goes quiet (the core's own rule)."""
    replica, before, after, message = step.replica, step.before, step.after, step.message
    everything = after.last_index == after.commit
    if isinstance(message, Sleep) and step.of_leader() and everything and after.last_index == message.index:
        replica.sleeps.add((message.term, message.index))
    if step.event.name == "node_down":
        replica.down.add(step.event.arguments[0])
    elif step.event.name == "node_up":
        replica.down.discard(step.event.arguments[0])
    if before.asleep or not after.asleep:
        return
    source = "the core's rule for sleep"
    if after.role != LEADER:
        if not isinstance(message, Sleep) or (message.term, message.index) not in replica.sleeps:
            raise Broken("a follower sleeps when told, with everything", source, f"{after}")
        return
    agreed = step.group.reign(after.term).agreed
    live = [each for each, node in replica.membership.members().items() if node not in replica.down]
    awake = [each for each in live if each != replica.id and (each, after.last_index) not in agreed]
    if awake or not everything:
        raise Broken("a leader sleeps when all that live agreed", source, f"{awake} did not: {after}")


def standing(step: Step) -> None:
    """What it shows fits together, and what it believes of others is so."""
    group, replica, before, after = step.group, step.replica, step.before, step.after
    wrote = replica.log.last_index, replica.log.last_term
    if (after.last_index, after.last_term) != wrote:
        found = f"{after.last_index} of term {after.last_term}, it wrote {wrote}"
        raise Broken("a log is what was written", "figure 2, log[]", found)
    if after.leader and (after.term not in group.reigns or group.reigns[after.term].leader != after.leader):
        raise Broken("who is taken for leader has been elected", "figure 3, Election Safety", f"{after.leader}")
    if not before.applied <= after.applied <= after.commit:
        raise Broken("what is applied is committed", "figure 2, lastApplied", f"{after.applied} of {after.commit}")
    if after.ready and (after.role != LEADER or after.applied < group.reign(after.term).first):
        raise Broken("a leader is ready when it has applied its first entry", "dissertation 6.4", f"{after}")
    if step.event.name == "installed" or after.snapshot_index == before.snapshot_index:
        return
    if not before.snapshot_index < after.snapshot_index <= min(before.applied, replica.synced_index):
        found = f"up to {after.snapshot_index}, applied {before.applied}, durable {replica.synced_index}"
        raise Broken("only what is applied is forgotten", "dissertation 5.1", found)
