"""Control: registers, command fetch, dispatch to the engines' queues, dependency tokens, failure and restart."""
