-- One index serves those who look for what nobody works on, in the order in which it is due, and those who look for what a node has:
-- every operation that is accepted, claimed and ended was entered in three. Programs of version 1 find the same, and sort it.
LOCK TABLE longrun.operations IN SHARE ROW EXCLUSIVE MODE;
CREATE INDEX operations_work ON longrun.operations (node, due_at, id) WHERE done_at IS NULL OR node IS NOT NULL;
-- Not to be made for nothing because somebody reads.
SET LOCAL lock_timeout = 10000;
DROP INDEX longrun.operations_due, longrun.operations_unclaimed, longrun.operations_node;
