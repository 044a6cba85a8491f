-- Franking agents that a commit has replaced, for franks of messages that were
-- accepted before it and are taken in after it.
CREATE TABLE past_agent (
    group_id BLOB    NOT NULL,
    epoch    INTEGER NOT NULL, -- the last in which it was the agent
    agent    BLOB    NOT NULL, -- FrankingAgent
    PRIMARY KEY (group_id, epoch)
) STRICT, WITHOUT ROWID;
