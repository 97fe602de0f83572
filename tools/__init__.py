"""Commands beside the six of the root, each `python -m tools.NAME`, with `--help`.

your data             check_data    before training: broken lines, roles, lengths, duplicates, leaks
                      convert       conversations, character cards and the authors' files, as data for --data
                      resplit       RoleBench split anew, without test questions in the training data
your characters       add_role      one role more for a finished run, from a few lines
                      export        a role's adapter, or a merged model, for other engines
                      serve_check   whether vLLM and llama.cpp answer as the run does, and how fast
what a run is worth   compare       runs side by side, with intervals
                      voice         whether a classifier names the role from the answers
                      turns         whether voice and facts hold up in a conversation
                      scarcity      one method's lead over another, by the training lines of a role
                      gains         runs against runs on other data, on the test lines that both have read
                      tsne          the matrices of a run as points, by role and by layer
                      judge         a judge compares two files of answers
                      collect       a service's answers to the test questions
before a run          params        trainable parameters of every method for a backbone
                      memory        the GPU memory of a step and of answering, for a backbone
the studies           reproduce     trains and scores every run of a study, and writes its tables
                      results       the tables of the pages, from results/*.json
                      figures       the figures of the documents
the project           exercises     the equations left blank, and the tests that judge what is written there
                      paper         docs/paper.md, with code cut out of the source
                      mutants       each operator and constant changed once: what do the tests notice?

All other files here are parts of these.
"""
