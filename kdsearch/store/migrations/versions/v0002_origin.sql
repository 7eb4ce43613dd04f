-- Empty for trials from before it was kept.
ALTER TABLE kdsearch.trial ADD COLUMN origin text NOT NULL DEFAULT '';
