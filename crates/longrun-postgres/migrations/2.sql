-- One index serves those who look for what nobody works on, in the order in which it is due, and those who look for what a node has:
-- every operation that is accepted, claimed and ended was entered in three.
CREATE INDEX operations_work ON longrun.operations (node, due_at, id) WHERE done_at IS NULL OR node IS NOT NULL;
DROP INDEX longrun.operations_due, longrun.operations_unclaimed, longrun.operations_node;
