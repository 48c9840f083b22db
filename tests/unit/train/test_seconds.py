from components.train.loop.trainer import seconds_per_step, seconds_trained


def test_a_step_is_the_median_of_those_that_follow_one_another() -> None:
    ends = {1: 5.0, 2: 6.0, 3: 7.1, 5: 20.0, 6: 21.2}  # step 4 was not logged: the job was started anew
    history = [{"step": step, "seconds": seconds, "loss": 1.0} for step, seconds in ends.items()]
    history.insert(3, {"held_out_loss": 2.0, "held_out_epoch": 1, "step": 3})
    assert seconds_per_step(history) == 1.1
    assert seconds_trained(history) == 21.2
    assert seconds_per_step(history[:1]) is None
