-- SQLite compares text by octets.
SELECT 1;
