from components.prepare_dataset.packing.stored import Chosen, stored_samples
from components.prepare_dataset.records.mixture import mixed
from components.prepare_dataset.records.near_duplicates import near_duplicates
from components.prepare_dataset.records.records import RecordFile
from components.prepare_dataset.samples.tokens import Encoded, Encoder
from components.shared.spec.data import DataSpec
from tests.unit.prepare_dataset.conftest import conversation, encoded_samples, kept

ANSWER = " ".join(f"word{number} is 12 plus {number}" for number in range(60))


def _samples(encoder: Encoder, *answers: str, question: str = "q") -> Chosen[Encoded]:
    talks = [
        conversation(f"{question}{number}", answer, where=f"a:{number}")
        for number, answer in enumerate(answers)
    ]
    return encoded_samples(encoder, *talks)


def _part(samples: Chosen[Encoded], *numbers: int) -> Chosen[Encoded]:
    return samples.of(numbers)


def test_answers_that_differ_in_a_few_words_are_near_duplicates(encoder: Encoder) -> None:
    others = [
        " ".join(f"港{number * seed} の色は {seed}" for number in range(60)) for seed in (3, 5, 7)
    ]
    samples = _samples(encoder, ANSWER, *others, ANSWER.replace("word30", "other"))
    found = near_duplicates(samples, _part(samples))
    assert (found.num_compared, found.train.count, found.held_out.count) == (5, 1, 0)
    assert found.train.first == (("a:4", "a:0"),)


def test_a_held_out_answer_that_is_nearly_trained_on_is_counted_apart(encoder: Encoder) -> None:
    samples = _samples(encoder, ANSWER, "x" * 90, ANSWER.replace("word7", "seven"))
    found = near_duplicates(_part(samples, 0, 1), _part(samples, 2))
    assert (found.train.count, found.held_out.first) == (0, (("a:2", "a:0"),))


def test_equal_conversations_short_answers_and_repeated_sources_are_none(encoder: Encoder) -> None:
    talk = conversation("q", ANSWER)
    equal = encoded_samples(encoder, talk, talk)
    assert near_duplicates(equal, equal.of(())).train.count == 0
    short = _samples(encoder, "Yes.", "Yes.")
    assert near_duplicates(short, short.of(())).num_compared == 0
    one = _samples(encoder, ANSWER)
    assert near_duplicates(_part(one, 0, 0, 0), _part(one)).num_compared == 1


def test_a_long_system_turn_that_all_share_makes_no_near_duplicates(encoder: Encoder) -> None:
    talks = [
        conversation(
            f"q{number}",
            f"{number} " + "abcdefghij"[number:] * 9,
            system=ANSWER * 3,
            where=f"a:{number}",
        )
        for number in range(4)
    ]
    samples = encoded_samples(encoder, *talks)
    assert near_duplicates(samples, samples.of(())).train.count == 0


def test_of_many_samples_the_same_part_is_compared_every_time(encoder: Encoder) -> None:
    samples = _samples(encoder, *(f"{ANSWER} {number}" for number in range(200)))
    found = near_duplicates(samples, samples.of(()), most=50)
    assert 20 < found.num_compared < 90
    assert found == near_duplicates(samples, samples.of(()), most=50)
    assert len(stored_samples(samples)) == 200


def test_of_a_part_that_a_mixture_took_only_a_part_is_compared_too(encoder: Encoder) -> None:
    talks = [conversation(f"q{number}", f"{ANSWER} {number}") for number in range(800)]
    everything = kept(*talks)
    (source,) = DataSpec(train=({"path": "p", "repeat": 0.25},)).train_sources  # pyright: ignore[reportArgumentType]
    taken = mixed(everything, [RecordFile(everything, "")], [source])
    samples = encoded_samples(encoder, *taken)
    found = near_duplicates(samples, samples.of(()), most=len(samples) // 4)
    assert found.num_compared < len(samples) / 2
