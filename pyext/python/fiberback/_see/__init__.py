"""What waits in this process, where and for what?"""
