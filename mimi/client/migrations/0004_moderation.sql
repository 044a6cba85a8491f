-- 1 if the sender might replace a message or reaction of another when this came,
-- by the role that it had then; 0 if not; NULL for what came before this column.
ALTER TABLE message ADD COLUMN may_replace INTEGER;
