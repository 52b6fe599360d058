"""What waits in this process, where and for what; and who blocks a loop?"""
