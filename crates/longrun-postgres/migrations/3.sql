-- What waits for nothing and belongs to nobody is found by nodes whose clocks are behind that of the node that accepted it. Usually
-- nothing is in it: an operation belongs to the node that accepts it, from its first commit on.
LOCK TABLE longrun.operations IN SHARE ROW EXCLUSIVE MODE;
CREATE INDEX operations_at_once ON longrun.operations (created_at) WHERE done_at IS NULL AND node IS NULL AND due_at = created_at;
