"""Who calls, and what is asked: a body and its headers -> a Caller and a Call, or a refusal."""
