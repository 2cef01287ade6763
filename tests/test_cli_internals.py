"""What breaks when a private name that the command line needs is gone."""

from jsonargparse import ArgumentParser

from gan_lightning.options.jsonargparse_internals import integers_stay_integers


def test_one_batch_becomes_all_batches_without_the_actions_and_type_hints_of_a_parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--limit", type=float | int | None)
    assert isinstance(parser.parse_args(["--limit", "1"]).limit, float), "jsonargparse no longer needs this"
    integers_stay_integers(parser)
    assert isinstance(parser.parse_args(["--limit", "1"]).limit, int)
    assert parser.parse_args(["--limit", "0.5"]).limit == 0.5
    assert parser.parse_args(["--limit", "null"]).limit is None
