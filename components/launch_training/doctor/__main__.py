"""What `python -m components.launch_training.doctor` starts."""

from components.launch_training.doctor.examination import main

if __name__ == "__main__":
    main()
