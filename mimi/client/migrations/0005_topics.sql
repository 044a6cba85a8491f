-- Whether the sender of a message that replaces another might change topics when it
-- came: 1 those of its own messages, 2 those of others, 3 both. NULL for what came
-- before this column.
ALTER TABLE message ADD COLUMN may_retopic INTEGER;
