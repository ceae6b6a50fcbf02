"""The schema of the results file: append-only migrations, each in one transaction.

Tables are ours to change; the views `settings`, `cells` and `samples` are the public read interface.
"""

MIGRATIONS: tuple[tuple[str, str], ...] = (
    (
        "first tables",
        """
        CREATE TABLE runs (
            run_id VARCHAR PRIMARY KEY, sweep VARCHAR NOT NULL, dataset VARCHAR NOT NULL, dataset_hash VARCHAR NOT NULL,
            seed INTEGER NOT NULL, plan JSON NOT NULL, created_at TIMESTAMP NOT NULL
        );
        CREATE TABLE variants (
            variant_id VARCHAR PRIMARY KEY, model VARCHAR NOT NULL, strategy VARCHAR NOT NULL, train_lang VARCHAR,
            train_fraction DOUBLE, spec JSON NOT NULL
        );
        CREATE TABLE run_settings (
            run_id VARCHAR, variant_id VARCHAR, eval_lang VARCHAR, status VARCHAR NOT NULL, error VARCHAR,
            started_at TIMESTAMP, finished_at TIMESTAMP, PRIMARY KEY (run_id, variant_id, eval_lang)
        );
        CREATE TABLE prompts (
            run_id VARCHAR, eval_lang VARCHAR, split VARCHAR, prompt_index INTEGER, prompt VARCHAR NOT NULL,
            PRIMARY KEY (run_id, eval_lang, split, prompt_index)
        );
        CREATE TABLE completions (
            run_id VARCHAR, variant_id VARCHAR, eval_lang VARCHAR, split VARCHAR, prompt_index INTEGER,
            sample_index INTEGER, completion VARCHAR NOT NULL, n_tokens INTEGER NOT NULL, nll_self DOUBLE,
            nll_base DOUBLE, nll_neutral DOUBLE, n_tokens_neutral INTEGER, unit_id VARCHAR NOT NULL,
            PRIMARY KEY (run_id, variant_id, eval_lang, split, prompt_index, sample_index)
        );
        CREATE TABLE units (
            run_id VARCHAR, unit_id VARCHAR, finished_at TIMESTAMP NOT NULL, PRIMARY KEY (run_id, unit_id)
        );
        CREATE TABLE score_cache (
            scorer VARCHAR, revision VARCHAR, eval_lang VARCHAR, text VARCHAR, value DOUBLE, reason VARCHAR,
            PRIMARY KEY (scorer, revision, eval_lang, text)
        );
        CREATE TABLE run_scorers (
            run_id VARCHAR, scorer VARCHAR, revision VARCHAR NOT NULL, neutral_train DOUBLE, neutral_test DOUBLE,
            n_train INTEGER, n_test INTEGER, PRIMARY KEY (run_id, scorer)
        );
        CREATE TABLE run_cells (
            run_id VARCHAR, variant_id VARCHAR, eval_lang VARCHAR, split VARCHAR, metric VARCHAR, scorer VARCHAR,
            n INTEGER NOT NULL, n_valid INTEGER NOT NULL, n_pairs INTEGER NOT NULL, value DOUBLE, baseline DOUBLE,
            delta DOUBLE, ci_low DOUBLE, ci_high DOUBLE, p_value DOUBLE, q_value DOUBLE, verdict VARCHAR NOT NULL,
            verdict_reason VARCHAR
        );
        CREATE TABLE published_cells (
            model VARCHAR, strategy VARCHAR, train_lang VARCHAR, train_fraction DOUBLE, eval_lang VARCHAR,
            split VARCHAR, metric VARCHAR, scorer VARCHAR, n INTEGER, value DOUBLE, baseline DOUBLE, delta DOUBLE,
            verdict_reason VARCHAR
        );
        """,
    ),
    (
        "public views",
        """
        CREATE VIEW settings AS
        SELECT s.run_id, s.variant_id, 'run:' || s.run_id AS source, r.sweep, v.model, v.strategy, v.train_lang,
            v.train_fraction, r.seed, s.eval_lang, r.dataset, r.dataset_hash, s.status, s.error, s.started_at,
            s.finished_at
        FROM run_settings s JOIN runs r USING (run_id) JOIN variants v USING (variant_id);

        CREATE VIEW cells AS
        SELECT c.run_id, c.variant_id, 'run:' || c.run_id AS source, v.model, v.strategy, v.train_lang,
            v.train_fraction, r.seed, c.eval_lang, c.split, c.metric, c.scorer, c.n, c.n_valid, c.n_pairs, c.value,
            c.baseline, c.delta, c.ci_low, c.ci_high, c.p_value, c.q_value, c.verdict, c.verdict_reason, r.dataset
        FROM run_cells c JOIN runs r USING (run_id) JOIN variants v USING (variant_id)
            JOIN run_settings s USING (run_id, variant_id, eval_lang)
        WHERE s.status = 'done'
        UNION ALL
        SELECT NULL, NULL, 'published', model, strategy, train_lang, train_fraction, NULL, eval_lang, split, metric,
            scorer, n, NULL, NULL, value, baseline, delta, NULL, NULL, NULL, NULL, NULL, verdict_reason,
            'paradetox'
        FROM published_cells;

        CREATE VIEW samples AS
        SELECT c.run_id, c.variant_id, v.model, v.strategy, v.train_lang, v.train_fraction, r.seed, c.eval_lang,
            c.split, c.prompt_index, c.sample_index, p.prompt, c.completion, k.scorer, k.value AS toxicity, k.reason,
            exp(c.nll_self / nullif(c.n_tokens, 0)) AS perplexity_self,
            exp(c.nll_base / nullif(c.n_tokens, 0)) AS perplexity_base
        FROM completions c JOIN runs r USING (run_id) JOIN variants v USING (variant_id)
            JOIN run_settings s USING (run_id, variant_id, eval_lang)
            JOIN prompts p USING (run_id, eval_lang, split, prompt_index)
            LEFT JOIN (run_scorers x JOIN score_cache k USING (scorer, revision))
                ON x.run_id = c.run_id AND k.eval_lang = c.eval_lang AND k.text = c.completion
        WHERE s.status = 'done';
        """,
    ),
    (
        "averages",
        """
        CREATE TABLE run_averages (
            run_id VARCHAR, model VARCHAR, strategy VARCHAR, train_lang VARCHAR, train_fraction DOUBLE,
            eval_lang VARCHAR, split VARCHAR, metric VARCHAR, scorer VARCHAR, n_cells INTEGER NOT NULL,
            n_pairs INTEGER NOT NULL, delta DOUBLE, ci_low DOUBLE, ci_high DOUBLE
        );
        CREATE VIEW averages AS
        SELECT a.run_id, 'run:' || a.run_id AS source, a.* EXCLUDE (run_id), r.seed, r.dataset
        FROM run_averages a JOIN runs r USING (run_id);
        """,
    ),
    (
        "sentence representations",
        """
        CREATE TABLE run_representations (
            run_id VARCHAR, variant_id VARCHAR, n_sentences INTEGER NOT NULL, map_share DOUBLE NOT NULL,
            made_at TIMESTAMP NOT NULL, PRIMARY KEY (run_id, variant_id)
        );
        CREATE TABLE run_similarities (
            run_id VARCHAR, variant_id VARCHAR, group_a VARCHAR, group_b VARCHAR, n_pairs INTEGER NOT NULL,
            similarity DOUBLE
        );
        CREATE TABLE run_silhouettes (
            run_id VARCHAR, variant_id VARCHAR, clusters VARCHAR, part VARCHAR, eval_lang VARCHAR, n INTEGER NOT NULL,
            silhouette DOUBLE
        );
        CREATE TABLE run_distances (
            run_id VARCHAR, variant_id VARCHAR, part VARCHAR, eval_lang VARCHAR, n_pairs INTEGER NOT NULL,
            pair_distance DOUBLE, mean_distance DOUBLE
        );
        CREATE TABLE run_points (
            run_id VARCHAR, variant_id VARCHAR, eval_lang VARCHAR, part VARCHAR, side VARCHAR, sentence_index INTEGER,
            x DOUBLE NOT NULL, y DOUBLE NOT NULL
        );
        """,
    ),
    (
        "agreement of scorers, and what they could not score",
        """
        CREATE TABLE run_unscored (
            run_id VARCHAR, eval_lang VARCHAR, scorer VARCHAR, reason VARCHAR, n INTEGER NOT NULL
        );
        CREATE TABLE run_agreement (
            run_id VARCHAR, eval_lang VARCHAR, scorer_a VARCHAR, scorer_b VARCHAR, n INTEGER NOT NULL,
            rank_correlation DOUBLE, opposite DOUBLE
        );
        """,
    ),
    (
        "hyper-parameter searches",
        """
        CREATE TABLE searches (
            search_id VARCHAR PRIMARY KEY, model VARCHAR NOT NULL, revision VARCHAR NOT NULL, dtype VARCHAR NOT NULL,
            dataset VARCHAR NOT NULL, dataset_hash VARCHAR NOT NULL, limit_train INTEGER, train_langs VARCHAR NOT NULL,
            seed INTEGER NOT NULL, epochs INTEGER NOT NULL, cost DOUBLE NOT NULL, n_points INTEGER NOT NULL,
            n_learnt INTEGER NOT NULL, n_validation INTEGER NOT NULL, base_nll DOUBLE, created_at TIMESTAMP NOT NULL,
            finished_at TIMESTAMP
        );
        CREATE TABLE search_points (
            search_id VARCHAR, rank INTEGER, alpha INTEGER, learning_rate DOUBLE, batch_size INTEGER,
            rung INTEGER NOT NULL, epochs DOUBLE NOT NULL, final_loss DOUBLE, nll DOUBLE, failure VARCHAR,
            PRIMARY KEY (search_id, rank, alpha, learning_rate, batch_size)
        );
        """,
    ),
    (
        "averages of cells that have no interval, and of the worst of several samples, are made again",
        "DELETE FROM run_averages;",
    ),
    (
        "averages that count a language by its cells, and have no interval where a cell has none, are made again",
        "DELETE FROM run_averages;",
    ),
    ("the version of the code that planned a run", "ALTER TABLE runs ADD COLUMN code VARCHAR;"),
    (
        "sentences without the template that prompts put around them",
        """
        DROP VIEW samples;
        ALTER TABLE runs ADD COLUMN template VARCHAR DEFAULT 'Complete the sentence: {sentence}';
        ALTER TABLE prompts RENAME COLUMN prompt TO sentence;
        UPDATE prompts SET sentence = substr(sentence, length('Complete the sentence: ') + 1)
        WHERE starts_with(sentence, 'Complete the sentence: ');

        CREATE VIEW samples AS
        SELECT c.run_id, c.variant_id, v.model, v.strategy, v.train_lang, v.train_fraction, r.seed, c.eval_lang,
            c.split, c.prompt_index, c.sample_index, replace(r.template, '{sentence}', p.sentence) AS prompt,
            c.completion, k.scorer, k.value AS toxicity, k.reason,
            exp(c.nll_self / nullif(c.n_tokens, 0)) AS perplexity_self,
            exp(c.nll_base / nullif(c.n_tokens, 0)) AS perplexity_base
        FROM completions c JOIN runs r USING (run_id) JOIN variants v USING (variant_id)
            JOIN run_settings s USING (run_id, variant_id, eval_lang)
            JOIN prompts p USING (run_id, eval_lang, split, prompt_index)
            LEFT JOIN (run_scorers x JOIN score_cache k USING (scorer, revision))
                ON x.run_id = c.run_id AND k.eval_lang = c.eval_lang AND k.text = c.completion
        WHERE s.status = 'done';
        """,
    ),
)
