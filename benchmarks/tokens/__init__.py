"""Attribution of tokens, measured."""
